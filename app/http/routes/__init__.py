"""The endpoints, one API per file."""
