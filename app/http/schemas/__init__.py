"""Requests and responses, one API surface per file."""
