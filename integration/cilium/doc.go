// Package cilium tries the tracer on a real Kubernetes node whose network plugin and
// service proxy is Cilium, in the ways in which Cilium can carry a packet: all lookups of
// a table, and what must and must not be said of each. Agent, operator and network plugin
// are built from their Go modules (components/); the agent compiles its BPF programs with
// Debian's clang 19. `make test-cilium` builds what is needed and runs it.
// The tracer sees all DNS of the machine: under load from elsewhere it leaves lookups out.
//
// Beside what kubenode has:
//
//	outside     172.31.255.54  a resolver that never answers
package cilium
