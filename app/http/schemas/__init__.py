"""Requests and responses, one API per file."""
