"""Every option of the main job, declared once: one room per group."""
