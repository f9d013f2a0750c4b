// Package bpf holds the eBPF programs and what bpf2go generates from them.
package bpf

//go:generate go tool bpf2go -cc clang -strip llvm-strip -target amd64,arm64 -output-stem dnstrace -type event -type sender -type thread -type nat -type drop -type waited -type outer -type fragment -type icmp_error Dnstrace dnstrace.c -- -O2 -g -Wall -Werror
//go:generate go tool bpf2go -cc clang -strip llvm-strip -target amd64,arm64 -output-stem listeners -type listening Listeners listeners.c -- -O2 -g -Wall -Werror
