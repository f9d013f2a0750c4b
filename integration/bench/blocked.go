package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// droppedMetric counts the records that an output lost.
const droppedMetric = "coredns_dnstrace_records_dropped_total"

// blockedOutputs are outputs of which none takes records: a pipe and a socket that
// nobody reads, a disk that is full, and a socket that nobody has.
type blockedOutputs struct {
	dir    string
	pipe   *os.File
	socket *net.UnixConn
}

func newBlockedOutputs(dir string) (*blockedOutputs, error) {
	b := &blockedOutputs{dir: dir}
	if err := syscall.Mkfifo(b.path("pipe"), 0o600); err != nil {
		return nil, err
	}
	var err error
	// Without a reader the plugin could not open it.
	if b.pipe, err = os.OpenFile(b.path("pipe"), os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
		return nil, err
	}
	b.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: b.path("deaf"), Net: "unixgram"})
	return b, err
}

func (b *blockedOutputs) path(name string) string { return filepath.Join(b.dir, "blocked."+name) }

// directive records every query to all of them; the buffer is small, so that it is
// full from the start.
func (b *blockedOutputs) directive() string {
	return fmt.Sprintf("dnstrace {\n output file %s\n output unix %s\n output unix %s\n output file /dev/full\n buffer 100\n }",
		b.path("pipe"), b.path("deaf"), b.path("absent"))
}

func (b *blockedOutputs) close() {
	_ = b.pipe.Close()
	_ = b.socket.Close()
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
	if len(losing) != 4 {
		return fmt.Errorf("%s: only these outputs lost records: %v", blockedName, losing)
	}
	return nil
}
