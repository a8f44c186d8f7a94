// How far the jobs of one kind are: words, a bar, the time left, a button to stop. Listens to the status bar and asks it
// to stop a job, so it costs no request of its own.
const line = element.querySelector('.dl-job'), words = line.querySelector('.dl-job-words'), fill = line.querySelector('.dl-job-fill');
const mine = () => (window.__darwinJobs || []).filter(one => props.kinds.includes(one.kind));
function paint() {
  const [job, ...rest] = mine();
  line.hidden = !job;
  if (!job) return;
  const left = job.eta == null || /left/.test(job.message) ? '' : job.eta < 90 ? `${Math.max(1, job.eta)} s left` : `${Math.round(job.eta / 60)} min left`;
  const waits = job.state === 'queued' ? 'waiting for its turn' : job.message || 'starting';
  const more = rest.length ? `${rest.length} more to come` : '';
  words.textContent = [`${Math.round(100 * job.fraction)} %`, waits, left, more].filter(Boolean).join(' · ');
  fill.style.setProperty('--w', 100 * job.fraction + '%');
  fill.parentElement.setAttribute('aria-valuenow', Math.round(100 * job.fraction));
}
line.querySelector('button').addEventListener('click', () => window.dispatchEvent(new CustomEvent('darwin-cancel', {detail: mine().map(job => job.id)})));
window.addEventListener('darwin-jobs', paint);
const removed = new MutationObserver(() => { if (!element.isConnected) { window.removeEventListener('darwin-jobs', paint); removed.disconnect(); } });
removed.observe(document.body, {childList: true, subtree: true});
paint();
