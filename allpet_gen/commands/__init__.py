"""Commands of the generator, found by ``allpet`` through entry points; torch is imported when they run."""
