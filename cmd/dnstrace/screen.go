package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dnstrace/dnstrace/tracer/render"
)

// What a terminal understands (ECMA-48, and xterm's alternate screen).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the alternate screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toHome      = "\x1b[H"
	endLine     = "\x1b[K\r\n" // the rest of the line is blank
	clearBelow  = "\x1b[J"
)

// screen is a terminal that shows one picture after the other.
type screen struct {
	out     io.Writer
	keys    <-chan key
	size    func() (width, height int)
	restore func() error
}

// key is a key that means something here.
type key int

const (
	keyNone key = iota
	keyQuit
	keyLeft
	keyRight
	keyReverse
	keyHold
)

// openScreen takes over the terminal. Keys come from standard input, or, where records do,
// from the controlling terminal; without either it draws and reads no keys.
func openScreen(cmd *cobra.Command) (*screen, error) {
	out, ok := cmd.OutOrStdout().(*os.File)
	if !ok {
		return nil, errors.New("the output is no terminal; use --once")
	}
	s := &screen{out: out, size: func() (int, int) {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil || width == 0 || height == 0 {
			return render.DefaultWidth, 24
		}
		return width, height
	}}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		var err error
		if in, err = os.Open("/dev/tty"); err != nil {
			in = nil
		}
	}
	s.restore = func() error { return nil }
	if in != nil {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("taking over the terminal: %w; use --once", err)
		}
		s.restore = func() error { return term.Restore(int(in.Fd()), before) }
		s.keys = readKeys(in)
	}
	if _, err := io.WriteString(out, enterScreen); err != nil {
		return nil, errors.Join(err, s.restore())
	}
	return s, nil
}

// Close gives the terminal back as it was.
func (s *screen) Close() error {
	_, err := io.WriteString(s.out, leaveScreen)
	return errors.Join(err, s.restore())
}

// show draws a picture over the one before.
func (s *screen) show(picture string) error {
	var b strings.Builder
	b.WriteString(toHome)
	lines := strings.Split(strings.TrimSuffix(picture, "\n"), "\n")
	for i, line := range lines {
		b.WriteString(line)
		if i < len(lines)-1 {
			b.WriteString(endLine)
		}
	}
	b.WriteString("\x1b[K" + clearBelow)
	_, err := io.WriteString(s.out, b.String())
	return err
}

// readKeys reads keys until the process ends: a read from a terminal cannot be canceled.
func readKeys(in io.Reader) <-chan key {
	keys := make(chan key)
	go func() {
		defer close(keys)
		buf := make([]byte, 16)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return
			}
			for _, k := range parseKeys(buf[:n]) {
				keys <- k
			}
		}
	}()
	return keys
}

// parseKeys parses what a terminal in raw mode sends, where Ctrl-C is a byte too.
func parseKeys(b []byte) []key {
	var keys []key
	for len(b) > 0 {
		switch {
		case len(b) >= 3 && b[0] == 0x1b && (b[1] == '[' || b[1] == 'O'):
			switch b[2] {
			case 'C':
				keys = append(keys, keyRight)
			case 'D':
				keys = append(keys, keyLeft)
			}
			b = b[3:]
			continue
		case b[0] == 'q', b[0] == 'Q', b[0] == 3, b[0] == 4:
			keys = append(keys, keyQuit)
		case b[0] == '<', b[0] == ',':
			keys = append(keys, keyLeft)
		case b[0] == '>', b[0] == '.':
			keys = append(keys, keyRight)
		case b[0] == 'r', b[0] == 'R':
			keys = append(keys, keyReverse)
		case b[0] == ' ':
			keys = append(keys, keyHold)
		}
		b = b[1:]
	}
	return keys
}
