"""Networks of containers: host devices that are moved in, and networks of libcontainer's kind."""
