package dnstrace

import (
	"context"
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
	// datagramLimit is the size of a datagram: well below the usual send buffer, part of which the kernel uses for
	// its own bookkeeping.
	datagramLimit = 60 << 10
	// redialDelay is the least time between two attempts to connect to the tracer.
	redialDelay = 250 * time.Millisecond
)

// sink is where lines go. It is not safe for concurrent use. Nothing closes it: a query may outlive its servers, and
// the garbage collector closes files and sockets that nobody uses any more.
type sink interface {
	// write writes whole lines. It waits until ctx is done; after an error, whole says how many of them went out.
	write(ctx context.Context, lines []byte) (whole int, err error)
	// limit is the most bytes that a write should have; one line may be more.
	limit() int
}

// Wrapped by the errors of a socket. Both count as no_receiver.
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

// until writes to an open file or socket, and waits until ctx is done. Regular files know no deadline, and need none.
type until struct {
	ctx context.Context
	to  interface {
		io.Writer
		SetWriteDeadline(time.Time) error
	}
}

// Write implements io.Writer.
func (u until) Write(b []byte) (int, error) {
	stop := context.AfterFunc(u.ctx, func() { _ = u.to.SetWriteDeadline(time.Now()) })
	defer stop()
	return u.to.Write(b)
}

// fileSink is an output file. Nothing waits for one for long.
type fileSink struct{ *recordfile.Log }

func openFile(path string) (fileSink, error) {
	l, err := recordfile.OpenLog(path, func(err error) { log.Warningf("output file %v", err) })
	return fileSink{l}, err
}

func (fileSink) limit() int { return fileLimit }

func (s fileSink) write(_ context.Context, lines []byte) (int, error) { return s.Append(lines) }

// streamSink is what standard output or error is.
type streamSink struct {
	file  *os.File
	size  int // limit
	lines recordfile.Lines
}

// openStream opens standard output or error. A blocking write to a pipe or terminal that nobody reads ignores
// deadlines, so those are opened again as non-blocking, which does not change the stream for the rest of CoreDNS.
// Where that is not possible, as for a socket, the stream itself is used. fd is its number: std.Fd would change its
// mode.
func openStream(std *os.File, fd int) *streamSink {
	if info, err := std.Stat(); err == nil && info.Mode().IsRegular() {
		return &streamSink{file: std, size: fileLimit}
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return &streamSink{file: std, size: pipeLimit}
	}
	return &streamSink{file: f, size: pipeLimit}
}

func (s *streamSink) limit() int { return s.size }

func (s *streamSink) write(ctx context.Context, lines []byte) (int, error) {
	return s.lines.WriteTo(until{ctx, s.file}, lines)
}

// unixSink sends datagrams to the socket of the node tracer, which may be absent, slow, or restarted at any time.
type unixSink struct {
	path  string
	conn  *net.UnixConn // nil: not connected
	retry time.Time
}

func (s *unixSink) limit() int { return datagramLimit }

// write sends one datagram. It waits for a slow tracer, and connects again, once, to one that is gone.
func (s *unixSink) write(ctx context.Context, lines []byte) (_ int, err error) {
	for range 2 {
		if err := s.dial(); err != nil {
			return 0, err
		}
		if _, err = (until{ctx, s.conn}).Write(lines); !gone(err) {
			return 0, err
		}
		_ = s.conn.Close()
		s.conn, s.retry = nil, time.Time{}
	}
	return 0, fmt.Errorf("%w: %w", errNoReceiver, err)
}

// gone reports whether err means that the receiver is gone.
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

// trusted reports an error unless only this user and root can have created the socket: who serves it reads every
// record. The folder may be missing while the tracer does not run.
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
		return nil // connecting will fail too
	case err != nil:
		return fmt.Errorf("%w, since whoever serves it reads every record: %w", errRefused, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%w: %s is no socket, but %v: remove it, or choose another path", errRefused, path, info.Mode())
	}
	return nil
}
