"""Messages and errors that producer and workers share. No I/O, no dependency on other packages of ours."""
