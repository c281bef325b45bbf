"""Files for the tests of what is written, and the test that kills a run at random moments."""
