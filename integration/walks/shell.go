package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/integration/stage"
)

const (
	// usualAPI is where everybody else's tracer listens: the default of --api.
	usualAPI = "/run/dnstrace/api.sock"
	// working is far above what any command takes.
	working = time.Minute
)

// shell runs the commands of a page as somebody on the node would.
type shell struct {
	l   *lab.Lab
	bin string // a folder with dnstrace, which asks the lab's tracer
}

func newShell(l *lab.Lab) (*shell, error) {
	s := &shell{l: l, bin: filepath.Join(l.Dir(), "bin")}
	binary, err := l.DnstracePath()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.bin, 0o755); err != nil {
		return nil, err
	}
	script := fmt.Sprintf(wrapper, stage.OfLab(l), binary, l.APISocket())
	return s, os.WriteFile(filepath.Join(s.bin, "dnstrace"), []byte(script), 0o755)
}

// wrapper adds to a command what is different here: where the tracer listens, and
// that the machine's other lookups are not of interest.
const wrapper = `#!/bin/sh
own='%s' next= done=
for arg do
	shift
	[ -z "$next" ] || arg="($arg) and $own" next= done=1
	[ "$arg" != -f ] || next=1
	set -- "$@" "$arg"
done
[ -n "$done" ] || set -- "$@" -f "$own"
exec %s "$@" --api %s
`

// run returns what a command prints, on both outputs.
func (s *shell) run(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, working)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out.String())
	}
	return strings.ReplaceAll(out.String(), s.l.APISocket(), usualAPI), nil
}
