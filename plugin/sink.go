package dnstrace

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/dnstrace/dnstrace/trace/recordfile"
	"github.com/dnstrace/dnstrace/trace/trustedpath"
)

const (
	// fileLimit is the size of a write to a file.
	fileLimit = 64 << 10
	// pipeLimit is the size of a write to a pipe: up to PIPE_BUF bytes are
	// written whole or not at all, so that CoreDNS's own log on the same pipe
	// never ends up inside a line. A record that is longer, by some twenty attempts,
	// may be written in pieces if the pipe is full just then.
	pipeLimit = 4096
	// datagramLimit is the size of a datagram: well below the usual send
	// buffer, of which the kernel's own bookkeeping takes a share.
	datagramLimit = 60 << 10
	// redialDelay keeps a plugin without a tracer from asking for it with
	// every batch.
	redialDelay = 250 * time.Millisecond

	// rotationDelay is how often a file's path is looked at.
	rotationDelay = time.Second
)

// open opens the sink of c.
func (c outputConfig) open() (sink, error) {
	switch c.kind {
	case outputFile:
		return openFile(c.path)
	case outputUnix:
		return &unixSink{path: c.path}, nil
	case outputStderr:
		return openStream(os.Stderr, 2), nil
	default:
		return openStream(os.Stdout, 1), nil
	}
}

// fileSink is a file, or what standard output or error is.
type fileSink struct {
	file  *os.File
	owned bool
	size  int
	torn  bool // the last line in the file is not complete
	// Of a file that we opened: its path, which never changes, what it
	// is, when its path was last looked at, and whether a new file could not be
	// opened since.
	path    string
	info    os.FileInfo
	checked time.Time
	stuck   bool
}

// openFile opens a file to append to, as package recordfile allows.
func openFile(path string) (*fileSink, error) {
	f, err := recordfile.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fileSink{file: f, owned: true, size: fileLimit, path: path, info: info, checked: time.Now()}, nil
}

// reopen opens the file anew when it was renamed or removed, as log rotation
// does. Until that works, records go on to the file that we have.
func (s *fileSink) reopen() {
	now := time.Now()
	if s.path == "" || now.Sub(s.checked) < rotationDelay {
		return
	}
	s.checked = now
	if info, err := os.Lstat(s.path); err == nil && os.SameFile(info, s.info) {
		return
	}
	next, err := openFile(s.path)
	if err != nil {
		s.warn(err)
		return
	}
	if err := s.file.Close(); err != nil {
		log.Warningf("output file %s: closing what was renamed: %v", s.path, err)
	}
	s.file, s.info, s.torn, s.stuck = next.file, next.info, false, false
}

// warn says once why a renamed file is still in use.
func (s *fileSink) warn(err error) {
	if !s.stuck {
		log.Warningf("output file %s: renamed or removed, but no new one can be opened; records go on to the old one: %v", s.path, err)
	}
	s.stuck = true
}

// openStream opens standard output or error. Writing to a pipe or terminal that
// nobody reads would block beyond any deadline, so those are opened once more,
// without blocking, which does not change the stream for the rest of CoreDNS.
// Where that is not allowed, or for a socket, the stream itself has to do. The
// number is given because asking std for it changes its mode.
func openStream(std *os.File, fd int) *fileSink {
	size := writeSize(std)
	if size == pipeLimit {
		f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
		if err == nil {
			return &fileSink{file: f, owned: true, size: size}
		}
	}
	return &fileSink{file: std, size: size}
}

func writeSize(f *os.File) int {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return fileLimit
	}
	return pipeLimit
}

func (s *fileSink) limit() int { return s.size }

func (s *fileSink) write(lines []byte) (int, error) {
	s.reopen()
	if s.torn {
		// What was written of the line before stays a line of its own.
		if _, err := s.file.Write([]byte{'\n'}); err != nil {
			return 0, err
		}
		s.torn = false
	}
	n, err := s.file.Write(lines)
	s.torn = n > 0 && n < len(lines) && lines[n-1] != '\n'
	if s.torn && lines[n] == '\n' {
		n++ // the record is whole, and its newline comes before the next one
	}
	return n, err
}

func (s *fileSink) interrupt(t time.Time) {
	// Regular files know no deadline and need none, and the writer may be opening
	// another one just now.
	if s.path == "" {
		_ = s.file.SetWriteDeadline(t)
	}
}

func (s *fileSink) close() error {
	if !s.owned {
		return nil
	}
	return s.file.Close()
}

// unixSink sends datagrams to the node tracer's socket, which may be absent,
// slow or started again at any time.
type unixSink struct {
	path  string
	retry time.Time

	mu       sync.Mutex
	conn     *net.UnixConn
	deadline time.Time
}

func (s *unixSink) limit() int { return datagramLimit }

// write sends one datagram. A tracer that is slow makes it wait; one that is
// gone is looked for once more.
func (s *unixSink) write(lines []byte) (int, error) {
	fresh := false
	if s.conn == nil {
		if err := s.dial(); err != nil {
			return 0, err
		}
		fresh = true
	}
	n, err := s.conn.Write(lines)
	if gone(err) && !fresh {
		s.retry = time.Time{}
		if err = s.dial(); err != nil {
			return 0, err
		}
		n, err = s.conn.Write(lines)
	}
	if gone(err) {
		return 0, fmt.Errorf("%w: %w", errNoReceiver, err)
	}
	return n, err
}

// gone reports whether err means that the receiver is not there any more.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTCONN) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (s *unixSink) dial() error {
	if now := time.Now(); now.Before(s.retry) {
		return errNoReceiver
	} else {
		s.retry = now.Add(redialDelay)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
	if err := trusted(s.path); err != nil {
		return err
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path, Net: "unixgram"})
	switch {
	case errors.Is(err, syscall.EACCES):
		return refusedError{"this user may not write to the socket: name it with `dnstrace run --listen-owner`, or run CoreDNS in the socket's group", err}
	case err != nil:
		return fmt.Errorf("%w: %w", errNoReceiver, err)
	}
	s.conn = conn
	return conn.SetWriteDeadline(s.deadline)
}

// trusted wants a socket that nobody but this user and root can have put there: who serves it
// reads every record. The folder may be missing, as long as the tracer does not run.
func trusted(path string) error {
	err := trustedpath.Rules{}.Folder(filepath.Dir(path))
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", errNoReceiver, err)
	case errors.Is(err, fs.ErrPermission):
		return nil // who may not look may not connect either
	case err != nil:
		return refusedError{"whoever serves a socket there reads every record", err}
	case info.Mode().Type() != fs.ModeSocket:
		return refusedError{"no record goes there", fmt.Errorf("%s is no socket, but %v: remove it, or choose another path", path, info.Mode())}
	}
	return nil
}

// refusedError is of a socket that records may not go to; it counts as no receiver.
type refusedError struct {
	why   string
	cause error
}

func (e refusedError) Error() string { return fmt.Sprintf("%s: %v", e.why, e.cause) }

func (e refusedError) Unwrap() []error { return []error{errNoReceiver, e.cause} }

func (s *unixSink) interrupt(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.conn != nil {
		_ = s.conn.SetWriteDeadline(t)
	}
}

func (s *unixSink) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}
