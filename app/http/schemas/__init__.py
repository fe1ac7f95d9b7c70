"""Requests and responses, one API surface a file."""
