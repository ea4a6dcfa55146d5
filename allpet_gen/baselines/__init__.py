"""What bridges are compared with: methods that answer the same call. Importing this package loads nothing."""
