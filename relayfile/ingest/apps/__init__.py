"""Apps: one URL and one secret for many customers, and the routes that say whose a delivery is."""
