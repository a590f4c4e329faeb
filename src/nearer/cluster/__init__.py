"""The run on Kubernetes: the chart, and the part of its schema that comes from the settings."""
