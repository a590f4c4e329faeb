"""Artifacts in S3 and in what speaks its language (MinIO, Ceph, R2, …): the only place that talks to it."""
