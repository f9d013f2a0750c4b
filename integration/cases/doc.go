// Package cases tries the real binaries on lookups that go wrong, or look as if they
// did, as people have reported it of DNS servers and resolvers. Each is a row of one
// table: the plugins of CoreDNS, how the upstream behaves, the clients, and what is said
// of it. What holds of all of them is checked for all: every message that an upstream
// got is in the trace of the lookup that it was sent for, and in no other place.
package cases
