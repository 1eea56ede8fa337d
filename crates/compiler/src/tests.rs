// Tests of the whole function; see the modules for their parts.
