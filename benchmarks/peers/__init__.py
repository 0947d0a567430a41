"""The peers that nearcase is measured against as a server, each as its own documentation says to write it."""
