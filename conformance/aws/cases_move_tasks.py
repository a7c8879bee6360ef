"""The requests of the recorded cases of message move tasks."""
