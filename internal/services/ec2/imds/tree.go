package imds

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// serve answers everything below a version.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, inst *Instance, rest string) {
	top, below, _ := strings.Cut(rest, "/")
	switch top {
	case "":
		list := "dynamic\nmeta-data"
		if len(inst.UserData) > 0 {
			list += "\nuser-data"
		}
		text(w, list)
	case "user-data":
		if len(inst.UserData) == 0 || below != "" {
			refuse(w, http.StatusNotFound)
			return
		}
		write(w, "application/octet-stream", string(inst.UserData))
	case "dynamic":
		h.dynamic(w, inst, strings.TrimSuffix(below, "/"))
	case "meta-data":
		h.metaData(w, r, inst, below)
	default:
		refuse(w, http.StatusNotFound)
	}
}

// document is the instance identity document (EC2 User Guide, "Instance
// identity documents"). Its signature is not built: signing with a key that
// nobody trusts would prove nothing.
type document struct {
	AccountID               string    `json:"accountId"`
	Architecture            string    `json:"architecture"`
	AvailabilityZone        string    `json:"availabilityZone"`
	BillingProducts         *string   `json:"billingProducts"`
	DevpayProductCodes      *string   `json:"devpayProductCodes"`
	MarketplaceProductCodes *string   `json:"marketplaceProductCodes"`
	ImageID                 string    `json:"imageId"`
	InstanceID              string    `json:"instanceId"`
	InstanceType            string    `json:"instanceType"`
	KernelID                *string   `json:"kernelId"`
	PendingTime             time.Time `json:"pendingTime"`
	PrivateIP               string    `json:"privateIp"`
	RamdiskID               *string   `json:"ramdiskId"`
	Region                  string    `json:"region"`
	Version                 string    `json:"version"`
}

func (h *Handler) dynamic(w http.ResponseWriter, i *Instance, p string) {
	switch p {
	case "":
		text(w, "instance-identity/")
	case "instance-identity":
		text(w, "document")
	case "instance-identity/document":
		raw, err := json.MarshalIndent(document{AccountID: i.Account, Architecture: i.Arch, AvailabilityZone: i.Zone, ImageID: i.Image, InstanceID: i.ID,
			InstanceType: i.Type, PendingTime: i.Launched.UTC().Truncate(time.Second), PrivateIP: i.PrivateIP, Region: i.Region, Version: "2017-09-30"}, "", "  ")
		if err != nil {
			h.log.Error("instance identity document", "id", i.ID, "error", err)
			refuse(w, http.StatusInternalServerError)
			return
		}
		text(w, string(raw))
	default:
		refuse(w, http.StatusNotFound)
	}
}

// metaData answers a leaf, or lists a directory with or without its slash.
func (h *Handler) metaData(w http.ResponseWriter, r *http.Request, i *Instance, p string) {
	if strings.HasPrefix(p, "iam/") || strings.TrimSuffix(p, "/") == "iam" {
		h.iam(w, r, i, strings.Trim(strings.TrimPrefix(p, "iam"), "/"))
		return
	}
	if strings.HasPrefix(p, "autoscaling") {
		h.autoscaling(w, r, i, strings.Trim(strings.TrimPrefix(p, "autoscaling"), "/"))
		return
	}
	leaves := i.leaves()
	if i.ProfileName != "" {
		leaves["iam/info"] = ""
	}
	name := strings.TrimSuffix(p, "/")
	if v, ok := leaves[name]; ok && name != "" {
		text(w, v)
		return
	}
	if list := children(leaves, name); list != "" {
		text(w, list)
		return
	}
	refuse(w, http.StatusNotFound)
}

// children lists what is directly below dir, directories with a slash, as
// EC2 does; "" where there is nothing.
func children(leaves map[string]string, dir string) string {
	prefix := ""
	if dir != "" {
		prefix = dir + "/"
	}
	seen := map[string]bool{}
	var names []string
	for leaf := range leaves {
		rest, ok := strings.CutPrefix(leaf, prefix)
		if !ok {
			continue
		}
		name, _, deeper := strings.Cut(rest, "/")
		switch {
		case prefix == "public-keys/0/" && name == "name":
			continue // it is shown in the list above only
		case prefix == "public-keys/" && deeper:
			name += "=" + leaves["public-keys/0/name"] // keys are listed as INDEX=NAME
		case deeper:
			name += "/"
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}

// leaves are the metadata that follow from the instance alone, by path.
func (i *Instance) leaves() map[string]string {
	m := map[string]string{
		"ami-id": i.Image, "ami-launch-index": strconv.FormatInt(i.LaunchIndex, 10), "ami-manifest-path": "(unknown)",
		"hostname": i.Hostname, "local-hostname": i.Hostname, "instance-action": "none", "instance-id": i.ID, "instance-life-cycle": i.Lifecycle, "instance-type": i.Type,
		"local-ipv4": i.PrivateIP, "mac": i.MAC, "profile": "default-hvm", "reservation-id": i.Reservation, "security-groups": strings.Join(i.GroupNames, "\n"),
		"placement/availability-zone": i.Zone, "placement/availability-zone-id": i.ZoneID, "placement/region": i.Region,
		"services/domain": "amazonaws.com", "services/partition": "aws", "system": "nitro",
		"block-device-mapping/ami": "/dev/xvda", "block-device-mapping/root": "/dev/xvda",
	}
	nic := "network/interfaces/macs/" + i.MAC + "/"
	for k, v := range map[string]string{
		"device-number": "0", "interface-id": i.ENI, "local-hostname": i.Hostname, "local-ipv4s": i.PrivateIP, "mac": i.MAC, "owner-id": i.Account,
		"security-group-ids": strings.Join(i.GroupIDs, "\n"), "security-groups": strings.Join(i.GroupNames, "\n"), "subnet-id": i.Subnet,
		"subnet-ipv4-cidr-block": i.SubnetCIDR, "vpc-id": i.VPC, "vpc-ipv4-cidr-block": i.VPCCIDR, "vpc-ipv4-cidr-blocks": i.VPCCIDR,
	} {
		m[nic+k] = v
	}
	if i.PublicKey != "" {
		m["public-keys/0/openssh-key"], m["public-keys/0/name"] = i.PublicKey, i.KeyName
	}
	for k, v := range i.Tags {
		if !strings.Contains(k, "/") {
			m["tags/instance/"+k] = v
		}
	}
	return m
}

func (h *Handler) autoscaling(w http.ResponseWriter, r *http.Request, i *Instance, p string) {
	state, err := h.source.LifecycleState(r.Context(), i)
	if err != nil {
		h.log.Warn("target lifecycle state", "id", i.ID, "error", err)
		refuse(w, http.StatusInternalServerError)
		return
	}
	switch {
	case state == "":
		refuse(w, http.StatusNotFound)
	case p == "":
		text(w, "target-lifecycle-state")
	case p == "target-lifecycle-state":
		text(w, state)
	default:
		refuse(w, http.StatusNotFound)
	}
}

// profileInfo is iam/info.
type profileInfo struct {
	Code               string
	LastUpdated        string
	InstanceProfileArn string
	InstanceProfileId  string
}

// roleCredentials is iam/security-credentials/ROLE.
type roleCredentials struct {
	Code            string
	LastUpdated     string
	Type            string
	AccessKeyId     string
	SecretAccessKey string
	Token           string
	Expiration      string
}

const stamp = "2006-01-02T15:04:05Z"

func (h *Handler) iam(w http.ResponseWriter, r *http.Request, i *Instance, p string) {
	if i.ProfileName == "" {
		refuse(w, http.StatusNotFound)
		return
	}
	role, arn, err := h.source.Role(r.Context(), i)
	if err != nil {
		h.log.Warn("role of an instance", "id", i.ID, "error", err)
		refuse(w, http.StatusInternalServerError)
		return
	}
	switch {
	case p == "":
		text(w, "info\nsecurity-credentials/")
	case p == "info":
		h.json(w, i, profileInfo{"Success", h.tokens.now().UTC().Format(stamp), i.ProfileArn, i.ProfileID})
	case role == "":
		refuse(w, http.StatusNotFound)
	case p == "security-credentials":
		text(w, role)
	case p == "security-credentials/"+role:
		c, updated, err := h.credentials(r.Context(), i, arn)
		if err != nil {
			h.log.Warn("credentials of an instance", "id", i.ID, "role", arn, "error", err)
			h.json(w, i, map[string]string{"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role " + role + ". Please see documentation at https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_iam-ec2.html#troubleshoot_iam-ec2_errors-info-doc.", "LastUpdated": h.tokens.now().UTC().Format(stamp)})
			return
		}
		h.json(w, i, roleCredentials{"Success", updated.UTC().Format(stamp), "AWS-HMAC", c.AccessKeyID, c.Secret, c.Token, c.Expires.UTC().Format(stamp)})
	default:
		refuse(w, http.StatusNotFound)
	}
}

func (h *Handler) json(w http.ResponseWriter, i *Instance, v any) {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		h.log.Error("instance metadata", "id", i.ID, "error", err)
		refuse(w, http.StatusInternalServerError)
		return
	}
	text(w, string(raw))
}

// refreshBefore is how long before their expiry credentials are renewed: the
// SDKs ask again five minutes before.
const refreshBefore = 15 * time.Minute

// maxCached bounds the memory for credentials; beyond it all are fetched anew.
const maxCached = 20000

// credentials returns the instance's credentials with at least refreshBefore
// of life left where a fetch succeeds, else what is still valid.
func (h *Handler) credentials(ctx context.Context, i *Instance, role string) (Credentials, time.Time, error) {
	h.mu.Lock()
	if len(h.creds) > maxCached {
		h.creds = map[string]*cached{}
	}
	c := h.creds[i.ID+" "+role]
	if c == nil {
		c = &cached{}
		h.creds[i.ID+" "+role] = c
	}
	h.mu.Unlock()

	c.mu.Lock()
	defer c.mu.Unlock()
	now := h.tokens.now()
	if c.creds.Expires.Sub(now) > refreshBefore {
		return c.creds, c.updated, nil
	}
	fresh, err := h.source.Credentials(ctx, i, role)
	if err != nil {
		if c.creds.Expires.After(now) {
			return c.creds, c.updated, nil
		}
		return Credentials{}, now, err
	}
	c.creds, c.updated = fresh, now
	return c.creds, c.updated, nil
}
