"""One command for one machine: a private Redis, a gateway and workers as processes of their own."""
