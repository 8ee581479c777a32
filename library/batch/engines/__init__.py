"""What trains the jobs of a driver: this process, children of it, or actors of Ray. Each gives one trainer a device."""
