"""HTTP/1.1 for one job, a proxy on a GPU box: a server, outgoing connections kept alive, and nothing else."""
