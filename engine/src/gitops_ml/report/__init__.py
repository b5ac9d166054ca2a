"""What people read: tables, charts, the comment, the summary."""
