package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// emptyPrograms are attached: what a run costs in which nothing is done, most of
// which is the kernel's looking at the clock.
type emptyPrograms struct {
	programs
	links []link.Link
}

// emptyAt names the empty program at a tracepoint.
func emptyAt(tracepoint string) string { return "empty at " + tracepoint }

// attachEmpty attaches a program to every tracepoint that the tracer has one at.
// The caller must close them.
func attachEmpty() (*emptyPrograms, error) {
	e := &emptyPrograms{programs: make(programs)}
	for _, tracepoint := range tracepoints {
		if tracepoint == "" || e.programs[emptyAt(tracepoint)] != nil {
			continue
		}
		if err := e.attach(tracepoint); err != nil {
			e.close()
			return nil, fmt.Errorf("empty program at %s: %w", tracepoint, err)
		}
	}
	return e, nil
}

func (e *emptyPrograms) attach(tracepoint string) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: tracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	e.programs[emptyAt(tracepoint)] = p
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	if err != nil {
		return err
	}
	e.links = append(e.links, l)
	return nil
}

func (e *emptyPrograms) close() {
	for _, l := range e.links {
		_ = l.Close()
	}
	e.programs.close()
}
