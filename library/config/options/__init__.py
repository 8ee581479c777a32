"""Every option of the main job, declared once: one file per group."""
