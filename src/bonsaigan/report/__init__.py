"""A run as one page for people. It reads the run's folder alone, and the page needs nothing but itself."""
