"""The HTTP edge: authenticates, admits, publishes requests and turns their journals into answers."""
