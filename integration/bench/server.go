package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	startTimeout = 10 * time.Second
	stopTimeout  = 10 * time.Second
)

// server is a CoreDNS process.
type server struct {
	cmd     *exec.Cmd
	addr    string
	metrics string // address of its metrics
	out     *os.File
	asked   int
	scraped float64 // allocations for its metrics
}

// start runs v until it answers.
func (b *bench) start(v variant) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	metrics, err := freePort()
	if err != nil {
		return nil, err
	}
	corefile, err := b.corefile(v, port, metrics)
	if err != nil {
		return nil, err
	}
	out, err := os.Create(filepath.Join(b.dir, "output."+v.name))
	if err != nil {
		return nil, err
	}
	s := &server{addr: fmt.Sprintf("127.0.0.1:%d", port), metrics: fmt.Sprintf("127.0.0.1:%d", metrics), out: out}
	s.cmd = exec.Command(v.binary, append([]string{"-conf", corefile}, v.args...)...)
	s.cmd.Env = append(os.Environ(), v.env...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	// The bench may be killed; a server that nobody knows must not stay.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for begin := time.Now(); ; {
		if err = probe(s.addr); err == nil {
			return s, nil
		}
		if time.Since(begin) > startTimeout {
			s.kill()
			text, _ := os.ReadFile(out.Name())
			return nil, fmt.Errorf("%s does not answer: %w\n%s", v.name, err, bytes.TrimSpace(text))
		}
	}
}

// freePort returns a port that nobody uses, over UDP or TCP.
func freePort() (int, error) {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		c, busy := net.ListenPacket("udp", l.Addr().String())
		if busy == nil {
			busy = c.Close()
		}
		if err := l.Close(); err != nil {
			return 0, err
		}
		if busy == nil {
			return l.Addr().(*net.TCPAddr).Port, nil
		}
	}
}

// stop ends the server as an operator does.
func (s *server) stop() error {
	defer s.out.Close()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.AfterFunc(stopTimeout, func() { _ = s.cmd.Process.Kill() })
	err := s.cmd.Wait()
	if !timer.Stop() {
		return fmt.Errorf("CoreDNS did not stop within %v", stopTimeout)
	}
	return err
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	_ = s.out.Close()
}

// cpu returns the CPU time that the threads of the server took: to the
// nanosecond, where /proc/PID/stat counts in steps of ten milliseconds.
func (s *server) cpu() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		return 0, errors.New("this kernel has no /proc/PID/task/TID/schedstat: it needs CONFIG_SCHED_INFO")
	}
	var sum time.Duration
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		onCPU, _, _ := bytes.Cut(content, []byte(" "))
		ns, err := strconv.ParseInt(string(onCPU), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
