"""@flow only: each reads as a table of contents."""
