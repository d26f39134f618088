"""BGP as pure functions: what is accepted, what is preferred, what is passed on. Time lives in the engine."""
