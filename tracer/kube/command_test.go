package kube

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// commanding is a kubeconfig whose user's credentials come from a command, which leaves a
// file behind.
func commanding(made string) string {
	return strings.Replace(kubeconfig, "{token: t}", fmt.Sprintf(`{exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: /bin/sh, args: ["-c", "touch %s; exit 1"]}}`, made), 1)
}

// A kubeconfig can name a command, which then runs as the tracer's user: one that others
// could change is refused, with a word on what to do. Nothing runs before the API server is
// asked, when the tracer has no privileges any more.
func TestCommandOfAKubeconfig(t *testing.T) {
	for name, tc := range map[string]struct {
		attack func(path string) error
		refuse string
	}{
		"root's own": {func(string) error { return nil }, ""},
		"behind links of root, as a Secret's": {func(path string) error {
			dir := filepath.Dir(path)
			return errors.Join(os.Mkdir(dir+"/..1", 0o755), os.Rename(path, dir+"/..1/config"), os.Symlink("..1", dir+"/..data"), os.Symlink("..data/config", path),
				os.Rename(dir+"/..1/config", dir+"/real"), os.Symlink("../real", dir+"/..1/config"))
		}, ""},
		"another's":                  {func(path string) error { return os.Chown(path, 65534, 65534) }, "belongs to user 65534"},
		"written to by all":          {func(path string) error { return os.Chmod(path, 0o666) }, "chmod go-w"},
		"in a folder of another":     {func(path string) error { return os.Chown(filepath.Dir(path), 65534, 65534) }, "belongs to user 65534"},
		"in a folder that all write": {func(path string) error { return os.Chmod(filepath.Dir(path), 0o777) }, "chmod go-w"},
		"behind a link of another": {func(path string) error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path), os.Lchown(path, 65534, 65534))
		}, "link of user 65534"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			path, made := filepath.Join(dir, "config"), filepath.Join(t.TempDir(), "made")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte(commanding(made)), 0o600), tc.attack(path)); err != nil {
				t.Fatal(err)
			}
			cfg, _, err := Find(path)
			if tc.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), tc.refuse) || !strings.Contains(err.Error(), "names a command") {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(made); err == nil {
				t.Error("it ran before anybody was asked")
			}
			if err := ask(t, cfg); err == nil {
				t.Error("somebody answered")
			}
			if _, err := os.Stat(made); err != nil {
				t.Errorf("it did not run: %v", err)
			}
		})
	}
	// One without a command may be anybody's: what it says is whom to ask.
	path := filepath.Join(t.TempDir(), "config")
	if err := errors.Join(os.WriteFile(path, []byte(kubeconfig), 0o600), os.Chown(path, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Find(path); err != nil {
		t.Error(err)
	}
}
