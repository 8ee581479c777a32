"""What finished jobs left: tables, pages, metrics, comparisons."""
