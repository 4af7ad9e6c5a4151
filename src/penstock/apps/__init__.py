"""Apps that come with penstock: each a folder that imports only `penstock`."""
