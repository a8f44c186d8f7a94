// How far the jobs of one kind are: words, a bar, the time left. Listens to the status bar, so it costs no request.
const line = element.querySelector('.dl-job'), words = line.querySelector('.dl-job-words'), fill = line.querySelector('.dl-job-fill');
function paint() {
  const job = (window.__darwinJobs || []).find(one => props.kinds.includes(one.kind));
  line.hidden = !job;
  if (!job) return;
  const left = job.eta == null || /left/.test(job.message) ? '' : job.eta < 90 ? `${Math.max(1, job.eta)} s left` : `${Math.round(job.eta / 60)} min left`;
  const waits = job.state === 'queued' ? 'waiting for its turn' : job.message;
  words.textContent = [`${Math.round(100 * job.fraction)} %`, waits, left].filter(Boolean).join(' · ');
  fill.style.setProperty('--w', 100 * job.fraction + '%');
  fill.parentElement.setAttribute('aria-valuenow', Math.round(100 * job.fraction));
}
window.addEventListener('darwin-jobs', paint);
const removed = new MutationObserver(() => { if (!element.isConnected) { window.removeEventListener('darwin-jobs', paint); removed.disconnect(); } });
removed.observe(document.body, {childList: true, subtree: true});
paint();
