"""The sweep: releases instances without an endpoint, and endpoints without progress."""
