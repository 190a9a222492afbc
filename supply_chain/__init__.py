"""What the service is made of besides its own code: what the locks name, what is installed, under which licences, and what is
known to be wrong with it. Works offline, on the locks and the installed metadata alone."""
