package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"slipway/internal/api/codecommit"
	"slipway/internal/hostinfo"
)

func envCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: `Print what makes aws, SDKs and git talk to this server: eval "$(slipway env)"`, Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := connect(o)
			if err != nil {
				return err
			}
			for _, kv := range append([]string{
				"AWS_ENDPOINT_URL=" + s.endpoint, "AWS_ACCESS_KEY_ID=" + s.keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + s.keys.SecretAccessKey,
				"AWS_REGION=" + s.region, "AWS_DEFAULT_REGION=" + s.region,
			}, s.credentialHelper()...) {
				k, v, _ := strings.Cut(kv, "=")
				fmt.Printf("export %s=%s\n", k, quote(v))
			}
			fmt.Println("unset AWS_SESSION_TOKEN AWS_PROFILE")
			return nil
		},
	}
}

// credentialCommand is git's credential helper: git runs it with get, store
// or erase and a description on standard input (gitcredentials(7)).
func credentialCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "git-credential", Hidden: true, Args: arguments(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != "get" {
				return nil
			}
			for sc := bufio.NewScanner(os.Stdin); sc.Scan() && sc.Text() != ""; {
			}
			keys, err := hostinfo.ReadCredentials(o.dataDir)
			if err != nil {
				return err
			}
			fmt.Printf("username=%s\npassword=%s\n", keys.AccessKeyID, keys.SecretAccessKey)
			return nil
		},
	}
}

func cloneCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "clone NAME [DIR]", Short: "Clone an application's repository, with a remote called slipway to push to", Args: arguments(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := connect(o)
			if err != nil {
				return err
			}
			dir := args[0]
			if len(args) == 2 {
				dir = args[1]
			}
			return s.clone(cmd.Context(), args[0], dir)
		},
	}
}

func (s *session) clone(ctx context.Context, name, dir string) error {
	repo, err := call(ctx, s, codecommit.OpGetRepository, &codecommit.GetRepositoryInput{RepositoryName: &name})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "git", "clone", "--quiet", "--origin", "slipway", *repo.RepositoryMetadata.CloneUrlHttp, dir)
	cmd.Env = append(os.Environ(), s.credentialHelper()...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git clone: %w", err)
	}
	// The helper goes into the clone's own configuration, so that git push
	// works there without any environment. No secret is written.
	for _, kv := range s.credentialHelper()[3:] {
		if _, v, ok := strings.Cut(kv, "GIT_CONFIG_VALUE_1="); ok {
			if _, err := git(ctx, dir, nil, "config", "credential."+s.endpoint+".helper", v); err != nil {
				return err
			}
		}
	}
	fmt.Printf("cloned into %s; after a commit: git push slipway main\n", dir)
	return nil
}
