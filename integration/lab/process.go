package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Time limits of a process's life.
const (
	readyTimeout = 20 * time.Second // from start to ready, unless its Spec says otherwise
	stopGrace    = 10 * time.Second // from SIGTERM to SIGKILL
	outputTail   = 8 << 10          // bytes of output that an error quotes
)

// Spec says what program to start, and where.
type Spec struct {
	// Name tells the process in errors, and its output files in Lab.Dir.
	Name string
	// Host is where it runs: a host's name, or empty for the namespace that
	// the lab was built from, from where all others can be observed.
	Host string
	// Path and Args are the program and its arguments, without its own name.
	// A path without a slash is looked for in PATH and the sbin folders.
	Path string
	Args []string
	// Env is added to the environment of this process.
	Env []string
	// ResolvConf, if set, is what the process sees as /etc/resolv.conf.
	ResolvConf string
	// Stdout is where its standard output goes; nil means a file in Lab.Dir.
	Stdout *os.File
	// Ready says when the process is ready; nil means at once.
	Ready Ready
	// ReadyTimeout is how long that may take; 0 means 20 s.
	ReadyTimeout time.Duration
}

// Process is a program that the lab runs. It implements Listener.
type Process struct {
	Spec
	lab            *Lab
	stdout, stderr string // paths of files
	earlier        [2]int // bytes that earlier runs wrote to them

	mu       sync.Mutex
	pid      int
	state    *os.ProcessState
	stopping bool
	died     bool          // a run ended without having been stopped
	exited   chan struct{} // closed when the current run has ended
}

// Start starts a program and waits until it is ready. If that fails, the
// error holds the end of its output. A process that ends before Stop or Close,
// with whatever code, is reported by Close. The kernel kills it if this
// process dies first.
func (l *Lab) Start(spec Spec) (*Process, error) {
	l.mu.Lock()
	n := len(l.processes)
	l.mu.Unlock()
	base := filepath.Join(l.dir, fmt.Sprintf("%s-%d", spec.Name, n))
	p := &Process{Spec: spec, lab: l, stdout: base + ".stdout", stderr: base + ".stderr"}
	if err := p.Start(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.processes = append(l.processes, p)
	l.mu.Unlock()
	return p, nil
}

// Start starts the process again after Stop and waits until it is ready; its
// output is appended. One that runs is left alone.
func (p *Process) Start() error {
	p.mu.Lock()
	running := p.exited != nil && !p.hasExited()
	p.mu.Unlock()
	if running {
		return nil
	}
	cmd, err := p.command()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	if err := p.launch(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	if err := p.waitReady(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w%s", p.Name, err, p.tail()), p.end())
	}
	return nil
}

// command prepares one run of the program.
func (p *Process) command() (*exec.Cmd, error) {
	path, err := findTool(p.Path)
	if err != nil {
		return nil, err
	}
	args := append([]string{path}, p.Args...)
	attr := &syscall.SysProcAttr{
		Setpgid:   true, // a Ctrl-C at the terminal is the lab's to handle
		Pdeathsig: syscall.SIGKILL,
	}
	if p.ResolvConf != "" {
		file := strings.TrimSuffix(p.stdout, ".stdout") + ".resolv.conf"
		if err := os.WriteFile(file, []byte(p.ResolvConf), 0o644); err != nil {
			return nil, err
		}
		// In a mount namespace of its own; $0 is the file.
		attr.Unshareflags = syscall.CLONE_NEWNS
		args = append([]string{"/bin/sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, file}, args...)
	}
	cmd := &exec.Cmd{Path: args[0], Args: args, Dir: p.lab.dir, SysProcAttr: attr}
	cmd.Env = append(os.Environ(), p.Env...)
	return cmd, nil
}

// launch starts cmd in the process's namespace and leaves a goroutine waiting
// for its end.
func (p *Process) launch(cmd *exec.Cmd) error {
	var files [2]*os.File
	for i, name := range []string{p.stdout, p.stderr} {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i], p.earlier[i] = f, len(p.read(name))
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	if p.Spec.Stdout != nil {
		cmd.Stdout = p.Spec.Stdout
	}
	started := make(chan error, 1)
	go p.run(cmd, started)
	return <-started
}

// run starts cmd, tells started how that went, and waits for its end. It keeps
// its thread until then: the kernel sends Pdeathsig when the thread that forked
// ends, not the process.
func (p *Process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer leaveThread(p.lab.home)
	if p.Host != "" {
		if err := p.lab.Host(p.Host).ns.enter(); err != nil {
			started <- err
			return
		}
	}
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	exited := make(chan struct{})
	p.mu.Lock()
	p.pid, p.state, p.stopping, p.exited = cmd.Process.Pid, nil, false, exited
	p.mu.Unlock()
	started <- nil
	// How it ended is in cmd.ProcessState.
	_ = cmd.Wait()
	p.mu.Lock()
	p.state = cmd.ProcessState
	p.died = p.died || !p.stopping
	p.mu.Unlock()
	close(exited)
}

// Stop ends the process with SIGTERM, and with SIGKILL after 10 s, which is an
// error. That the process had ended by itself since the last Stop is an error
// too, which quotes its output.
func (p *Process) Stop() error {
	err := p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.died {
		p.died = false
		err = errors.Join(err, fmt.Errorf("%s ended unexpectedly: %v%s", p.Name, p.state, p.tail()))
	}
	return err
}

// end ends the process if it runs.
func (p *Process) end() error {
	p.mu.Lock()
	p.stopping = true
	pid, exited := p.pid, p.exited
	running := exited != nil && !p.hasExited()
	p.mu.Unlock()
	if !running {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-exited:
		return nil
	case <-time.After(stopGrace):
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-exited
	return fmt.Errorf("%s did not end within %v of SIGTERM and was killed%s", p.Name, stopGrace, p.tail())
}

// Signal sends a signal, for example SIGSTOP to make a server unresponsive: it
// then returns when the last thread has stopped, as one that is on another
// processor goes on for a moment, and would answer.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited == nil || p.hasExited() {
		return fmt.Errorf("signal %s: it is not running", p.Name)
	}
	if err := syscall.Kill(p.pid, s); err != nil || s != syscall.SIGSTOP {
		return err
	}
	return awaitStop(p.pid)
}

// awaitStop waits until a child is stopped or ended. The kernel tells a parent
// of a stop when every thread has stopped (do_signal_stop in kernel/signal.c).
func awaitStop(pid int) error {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Pid is the process's id, also after its end.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// Exited is closed when the process has ended; a restart makes a new one.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}

// hasExited is called with the lock held, and a run there.
func (p *Process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// ExitCode is the code that the process ended with: -1 while it runs, and if a
// signal ended it.
func (p *Process) ExitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return -1
	}
	return p.state.ExitCode()
}

// Stdout returns all that the process has written to standard output so far, unless
// its Spec says where that goes.
func (p *Process) Stdout() string { return p.read(p.stdout) }

// Stderr returns all that the process has written to standard error so far.
func (p *Process) Stderr() string { return p.read(p.stderr) }

func (p *Process) read(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	return string(b)
}

// tail quotes the end of the output, for errors.
func (p *Process) tail() string {
	var s strings.Builder
	for _, stream := range []struct{ name, text string }{{"stdout", p.Stdout()}, {"stderr", p.Stderr()}} {
		text := stream.text
		if len(text) > outputTail {
			text = "…" + text[len(text)-outputTail:]
		}
		if text != "" {
			fmt.Fprintf(&s, "\n--- %s of %s:\n%s", stream.name, p.Name, strings.TrimRight(text, "\n"))
		}
	}
	return s.String()
}

// Outputs quotes the end of the output of every process of the lab.
func (l *Lab) Outputs() string {
	l.mu.Lock()
	processes := l.processes
	l.mu.Unlock()
	var s strings.Builder
	s.WriteString("output of the lab's processes:")
	for _, p := range processes {
		s.WriteString(p.tail())
	}
	return s.String()
}
