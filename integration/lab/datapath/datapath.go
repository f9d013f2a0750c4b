// Package datapath holds the eBPF programs of the lab's topologies and what bpf2go
// generates from them. They stand for what network plugins load; the tracer's own
// are in the folder bpf.
package datapath

//go:generate go tool bpf2go -cc clang -strip llvm-strip -target amd64,arm64 -output-stem socketlb SocketLB socketlb.c -- -O2 -g -Wall -Werror
//go:generate go tool bpf2go -cc clang -strip llvm-strip -target amd64,arm64 -output-stem packets Packets packets.c -- -O2 -g -Wall -Werror
