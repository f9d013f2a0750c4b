package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// droppedMetric counts the records that an output lost.
const droppedMetric = "coredns_dnstrace_records_dropped_total"

// blockedOutputs are outputs of which none takes records: a socket that nobody reads, a
// disk that is full, and a socket that nobody has.
type blockedOutputs struct {
	dir    string
	socket *net.UnixConn
}

func newBlockedOutputs(dir string) (*blockedOutputs, error) {
	b := &blockedOutputs{dir: dir}
	if err := os.Mkdir(b.path("disk"), 0o700); err != nil {
		return nil, err
	}
	// A page, which is then taken.
	if err := syscall.Mount("tmpfs", b.path("disk"), "tmpfs", 0, "size=4k"); err != nil {
		return nil, fmt.Errorf("mount %s: %w", b.path("disk"), err)
	}
	if err := os.WriteFile(b.path("disk/full"), make([]byte, 4<<10), 0o600); err != nil {
		return nil, errors.Join(err, syscall.Unmount(b.path("disk"), syscall.MNT_DETACH))
	}
	var err error
	b.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: b.path("deaf"), Net: "unixgram"})
	return b, err
}

func (b *blockedOutputs) path(name string) string { return filepath.Join(b.dir, "blocked."+name) }

// directive records every query to all of them; the buffer is small, so that it is
// full from the start.
func (b *blockedOutputs) directive() string {
	return fmt.Sprintf("dnstrace {\n output file %s\n output unix %s\n output unix %s\n buffer 100\n }",
		b.path("disk/records.jsonl"), b.path("deaf"), b.path("absent"))
}

func (b *blockedOutputs) close() {
	_ = b.socket.Close()
	_ = syscall.Unmount(b.path("disk"), syscall.MNT_DETACH)
}

// checkBlocked makes sure that every output of a server lost records.
func (s *server) checkBlocked() error {
	families, err := s.families()
	if err != nil {
		return err
	}
	losing := make(map[string]bool)
	for _, m := range families[droppedMetric].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "output" && m.GetCounter().GetValue() > 0 {
				losing[l.GetValue()] = true
			}
		}
	}
	if len(losing) != 3 {
		return fmt.Errorf("%s: only these outputs lost records: %v", blockedName, losing)
	}
	return nil
}
