"""What there is to conform to, which tests hold it, and the page that says so."""
