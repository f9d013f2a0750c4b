package trace

// RoleUpstream is the role of a trace that is an upstream query of a server, which
// could not be given to its lookup: no client's.
const RoleUpstream = "upstream"
