//! A package for one test, because that test compiles all that its package is tested with anew: here that is little.
