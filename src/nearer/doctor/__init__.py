"""What is wrong with the data, or with the cluster."""
