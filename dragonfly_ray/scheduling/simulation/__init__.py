"""The parts of the simulator: scenario, network, peers, the scheduler's shell, report."""
