"""File formats that sources share."""
