package dnstrace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dnstrace/dnstrace/trace/recordfile"
	"github.com/dnstrace/dnstrace/trace/trustedpath"
)

const (
	// fileLimit is the size of a write to a file.
	fileLimit = 64 << 10
	// pipeLimit is the size of a write to a pipe: up to PIPE_BUF bytes are written whole or not at all, so that
	// CoreDNS's own log on the same pipe never ends up inside a line. A record that is longer, by some twenty
	// attempts, may be written in pieces if the pipe is full just then.
	pipeLimit = 4096
	// datagramLimit is the size of a datagram: well below the usual send buffer, of which the kernel's own
	// bookkeeping takes a share.
	datagramLimit = 60 << 10
	// redialDelay keeps a plugin without a tracer from asking for it with every batch.
	redialDelay = 250 * time.Millisecond
	// patience is how long a write waits before it asks whether to go on.
	patience = 50 * time.Millisecond
	// rotationDelay is how often a file's path is looked at.
	rotationDelay = time.Second
)

// sink is where lines go. It is used by one goroutine.
type sink interface {
	// write writes whole lines. It waits, until giveUp; after an error, done says how many bytes went out.
	write(lines []byte, giveUp func() bool) (done int, err error)
	// limit is the most bytes that a write should have; one line may be more.
	limit() int
	close() error
}

// What the errors of a socket wrap. Records that may not go there count as without a receiver.
var (
	errNoReceiver = errors.New("nobody listens on the socket: start the node tracer with `dnstrace run --listen PATH`")
	errRefused    = errors.New("no record goes to the socket")
)

func openSink(c outputConfig) (sink, error) {
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

// writeTo writes to an open file or socket for as long as that takes, or until giveUp. Regular files know no
// deadline, and need none.
func writeTo(w interface {
	io.Writer
	SetWriteDeadline(time.Time) error
}, b []byte, giveUp func() bool) (n int, err error) {
	for {
		deadline, last := time.Now(), giveUp()
		if !last {
			deadline = deadline.Add(patience)
		}
		_ = w.SetWriteDeadline(deadline)
		done, err := w.Write(b[n:])
		n += done
		if last || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// fileSink is a file, or what standard output or error is.
type fileSink struct {
	file  *os.File
	owned bool
	size  int  // limit
	torn  bool // the last line that was written is not complete
	// Of a file that we opened: its path, which never changes, what it is, when its path was last looked at,
	// and whether a new file could not be opened since.
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
	return &fileSink{file: f, owned: true, size: fileLimit, path: path, info: info, checked: time.Now()}, err
}

// openStream opens standard output or error. Writing to a pipe or terminal that nobody reads would block beyond
// any deadline, so those are opened once more, without blocking, which does not change the stream for the rest
// of CoreDNS. Where that is not allowed, or for a socket, the stream itself has to do. The number is given
// because asking std for it changes its mode.
func openStream(std *os.File, fd int) *fileSink {
	if info, err := std.Stat(); err == nil && info.Mode().IsRegular() {
		return &fileSink{file: std, size: fileLimit}
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return &fileSink{file: std, size: pipeLimit}
	}
	return &fileSink{file: f, owned: true, size: pipeLimit}
}

// reopen opens the file anew when it was renamed or removed, as log rotation does. Until that works, records go
// on to the file that we have.
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
		if !s.stuck {
			log.Warningf("output file %s: renamed or removed, but no new one can be opened; records go on to the old one: %v", s.path, err)
		}
		s.stuck = true
		return
	}
	if err := s.close(); err != nil {
		log.Warningf("output file %s: closing what was renamed: %v", s.path, err)
	}
	*s = *next
}

func (s *fileSink) limit() int { return s.size }

func (s *fileSink) write(lines []byte, giveUp func() bool) (int, error) {
	s.reopen()
	if s.torn {
		// What was written of the line before stays a line of its own.
		if _, err := writeTo(s.file, []byte{'\n'}, giveUp); err != nil {
			return 0, err
		}
	}
	n, err := writeTo(s.file, lines, giveUp)
	s.torn = n > 0 && n < len(lines) && lines[n-1] != '\n'
	if s.torn && lines[n] == '\n' {
		n++ // the record is whole, and its newline comes before the next one
	}
	return n, err
}

func (s *fileSink) close() error {
	if !s.owned { // others use it too
		return nil
	}
	return s.file.Close()
}

// unixSink sends datagrams to the node tracer's socket, which may be absent, slow or started again at any time.
type unixSink struct {
	path  string
	conn  *net.UnixConn // nil: nobody listens, as far as we know
	retry time.Time
}

func (s *unixSink) limit() int { return datagramLimit }

// write sends one datagram. A tracer that is slow makes it wait; one that is gone is looked for once more.
func (s *unixSink) write(lines []byte, giveUp func() bool) (n int, err error) {
	for range 2 {
		if err := s.dial(); err != nil {
			return 0, err
		}
		if n, err = writeTo(s.conn, lines, giveUp); !gone(err) {
			return n, err
		}
		_ = s.conn.Close()
		s.conn, s.retry = nil, time.Time{}
	}
	return n, fmt.Errorf("%w: %w", errNoReceiver, err)
}

// gone reports whether err means that the receiver is not there any more.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOTCONN) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// dial connects, unless it is connected.
func (s *unixSink) dial() error {
	now := time.Now()
	switch {
	case s.conn != nil:
		return nil
	case now.Before(s.retry):
		return errNoReceiver
	}
	s.retry = now.Add(redialDelay)
	if err := trusted(s.path); err != nil {
		return err
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path, Net: "unixgram"})
	switch {
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w, since this user may not write to it: name it with `dnstrace run --listen-owner`, or run CoreDNS in its group: %w", errRefused, err)
	case err != nil:
		return fmt.Errorf("%w: %w", errNoReceiver, err)
	}
	s.conn = conn
	return nil
}

func (s *unixSink) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// trusted wants a socket that nobody but this user and root can have put there: who serves it reads every
// record. The folder may be missing, as long as the tracer does not run.
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
		return fmt.Errorf("%w, since whoever serves it reads every record: %w", errRefused, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%w: %s is no socket, but %v: remove it, or choose another path", errRefused, path, info.Mode())
	}
	return nil
}
