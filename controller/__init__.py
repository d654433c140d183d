"""The endpoint controller: events in, effects out. Hosted by the workflow and the simulator."""
